//! Cases, one file each, with the numbers of `docs/kubernetes.md`.

mod e01_install;
mod e02_sizes;
mod e03_steady;
mod e04_recreate;
mod e05_foreign;
mod e06_rules;
mod e07_samples;
mod e18_kill_datanodes;
mod e24_upgrade;
mod e27_bad_image;
mod e28_operator_upgrade;
mod e29_config;
mod e32_leader;
mod e36_delete;
mod e38_network_policies;
mod e41_kill_coordinator;
mod m02_ways_in;
mod m05_everything_dies;
mod m07_mistakes;
mod m08_neighbours;
mod rights;
