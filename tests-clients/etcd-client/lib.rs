//! Nothing: this package exists for its tests, which xtask takes from the etcd-client crate.
