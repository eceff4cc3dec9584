"""Recording: what a job writes down while its runs train, in their directories and in a tracker."""
