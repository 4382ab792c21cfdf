"""Small models, data and job directories for the tests of the learner."""
