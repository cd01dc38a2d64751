"What runs a study: where it is kept, who runs its trials, how values are drawn, when a trial is ended early."
