"""How many steps compressed training needs to the loss of exact training."""
