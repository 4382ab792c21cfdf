"""The learner: programs that train reward models and policies. Needs a job directory and nothing else of Accord."""
