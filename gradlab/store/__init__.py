"""Results on disk: frames with manifests, JSON lines, ratings; what a result depends on; long work in parts."""
