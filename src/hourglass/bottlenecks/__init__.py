"""The waists proper: bottlenecks that several systems share."""
