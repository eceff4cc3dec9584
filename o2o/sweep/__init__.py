"""Many runs: what each one is, and which of them are still to be run."""
