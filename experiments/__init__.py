"""The main job, `python -m experiments`: compressed and late gradients on logistic regression."""
