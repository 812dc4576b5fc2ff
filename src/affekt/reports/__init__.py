"""Documents generated from results: the model card, comparisons, the results page and its figures."""
