"A model of pairs."
