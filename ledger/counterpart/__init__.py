"""Party against party: what each anchored of the same batches, which records differ, the statement both can sign."""
