from cloud.cli import triton

triton(prog_name="python -m cloud")
