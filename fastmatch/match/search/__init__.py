"The search for a whole rule: what a rule may be made of, a workbench that shares the work, the ladder."
