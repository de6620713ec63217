"""Where what Tenure runs comes from: what is locked, under which licences, on which images."""
