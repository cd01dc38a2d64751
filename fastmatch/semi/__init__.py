"Many models as one: trained by fold, blended, boosted, stacked."
