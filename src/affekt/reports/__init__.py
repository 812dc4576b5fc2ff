"""Documents generated from results: the model card, the results page and the attention plot."""
