"""The main job, shown on real unmodified peers."""
