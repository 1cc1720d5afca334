"""Storage: frames with manifests, JSON lines, ratings; the keys of results; long work in parts."""
