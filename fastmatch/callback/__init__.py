"fastai callbacks: what is scored in validation, rates by group, and mixing."
