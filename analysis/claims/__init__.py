"""The paper's claims, the evidence for each and the verdicts."""
