"""The kernel stage: loads the BPF programs, owns what they hold, and turns their records into events."""
