"""What a Python team would put together instead, each as its documentation says."""
