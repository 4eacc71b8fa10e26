"""InformationPlane and MIMonitor: the mutual information of layers, batch entries and outputs of any module."""
