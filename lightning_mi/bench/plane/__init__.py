"""The benchmark of layer readings: InformationPlane beside other probes of the same network."""
