"""What the stages of the pipeline run; a folder is a stage's code, or what several stages stand on."""
