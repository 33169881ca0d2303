//! Byte streams between API server, kubelet and runtime: dialing, upgrade proxying, remote command channels
