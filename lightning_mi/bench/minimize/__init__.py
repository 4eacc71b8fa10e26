"""The benchmark of minimizing mutual information: penalties on data whose mutual information is known at every step."""
