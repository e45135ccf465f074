"""What headers and configurations of files say besides their tensors."""
