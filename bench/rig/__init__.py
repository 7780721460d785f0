"""What `bench/broker.py` measures with: a server, the contenders' processes, the measurements, and their tables."""
