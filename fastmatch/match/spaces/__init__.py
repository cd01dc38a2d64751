"Spaces: where candidates come from, one modality a file."
