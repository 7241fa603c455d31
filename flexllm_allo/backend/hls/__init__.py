"""HLS C++ for Vitis: text, C simulation, projects, tool runs, reports."""
