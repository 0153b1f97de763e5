"""How busy the running instances are, by Novita's metrics. One call tells about one instance's last hour."""
