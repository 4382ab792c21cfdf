"""How far each annotator can be trusted: estimates, kept with the moment they are of, and the weights they give."""
