//! A separate network for each machine, so that cables can be pulled.
//!
//! Two switches (kernel bridges) connect namespaces: the front, where clients and datanodes reach
//! coordinators, and the back, where coordinators reach etcd. This process is connected to both.
//! Requires root and `ip`.

use std::fs;
use std::process::Command;

use crate::process::Place;

/// Maximum number of concurrent networks, with separate addresses.
const NETWORKS_MAX: u8 = 32;
/// Host number of this process on each switch.
const OWN_HOST: u8 = 254;

/// One of the two switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// For clients and datanodes.
    Front,
    /// For etcd.
    Back,
}

impl Switch {
    const BOTH: [Self; 2] = [Self::Front, Self::Back];

    /// Returns the name of the cable's end in the machine.
    fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Front => 'f',
            Self::Back => 'b',
        }
    }

    fn subnet(self) -> u8 {
        match self {
            Self::Front => 231,
            Self::Back => 232,
        }
    }
}

/// Number of a machine: the last part of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host(pub(super) u8);

/// All machines and their cables. Removed on drop.
#[derive(Debug)]
pub(super) struct Networks {
    number: u8,
    hosts: Vec<Host>,
}

impl Networks {
    /// Creates the two switches, or returns why it cannot.
    pub(super) fn new() -> Result<Self, String> {
        let mut why = String::new();
        for number in 0..NETWORKS_MAX {
            remove_if_abandoned(number);
            match ip(&format!("link add {} type bridge", bridge(number, Switch::Front))) {
                Ok(()) => {
                    let networks = Self { number, hosts: Vec::new() };
                    networks.make_switches()?;
                    return Ok(networks);
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn make_switches(&self) -> Result<(), String> {
        let number = self.number;
        // Marks the owner of the network for later runs.
        let front = bridge(number, Switch::Front);
        ip(&format!("link set dev {front} alias {}", std::process::id()))?;
        ip(&format!("link add {} type bridge", bridge(number, Switch::Back)))?;
        for switch in Switch::BOTH {
            let bridge = bridge(number, switch);
            ip(&format!("addr add {}/24 dev {bridge}", self.address(Host(OWN_HOST), switch)))?;
            ip(&format!("link set dev {bridge} up"))?;
        }
        Ok(())
    }

    /// Adds a machine with cables to these switches; servers listen on the first.
    pub(super) fn add(&mut self, host: Host, switches: &[Switch]) -> Result<Place, String> {
        let namespace = namespace(self.number, host);
        self.hosts.push(host);
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        for switch in switches {
            let (cable, end) = (self.cable(host, *switch), switch.name());
            ip(&format!("link add {cable} type veth peer name {end} netns {namespace}"))?;
            let address = self.address(host, *switch);
            ip(&format!("-n {namespace} addr add {address}/24 dev {end}"))?;
            ip(&format!("-n {namespace} link set dev {end} up"))?;
            ip(&format!("link set dev {cable} up"))?;
            self.plug(host, *switch)?;
        }
        Ok(Place { namespace, address: self.address(host, switches[0]) })
    }

    /// Unplugs a cable at the switch: the machine has a link without traffic.
    pub(super) fn pull(&self, host: Host, switch: Switch) -> Result<(), String> {
        ip(&format!("link set dev {} nomaster", self.cable(host, switch)))
    }

    /// Plugs the cable in again.
    pub(super) fn plug(&self, host: Host, switch: Switch) -> Result<(), String> {
        ip(&format!(
            "link set dev {} master {}",
            self.cable(host, switch),
            bridge(self.number, switch)
        ))
    }

    fn address(&self, host: Host, switch: Switch) -> String {
        format!("10.{}.{}.{}", switch.subnet(), self.number, host.0)
    }

    fn cable(&self, host: Host, switch: Switch) -> String {
        format!("dfs{}{}{}", self.number, switch.letter(), host.0)
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for host in &self.hosts {
            // Removes the cables too.
            drop(ip(&format!("netns del {}", namespace(self.number, *host))));
        }
        for switch in Switch::BOTH {
            drop(ip(&format!("link del {}", bridge(self.number, switch))));
        }
    }
}

fn bridge(number: u8, switch: Switch) -> String {
    format!("dfs{number}{}", switch.letter())
}

fn namespace(number: u8, host: Host) -> String {
    format!("dfs{number}-{}", host.0)
}

/// Removes the network of a killed process.
fn remove_if_abandoned(number: u8) {
    let front = bridge(number, Switch::Front);
    let Ok(owner) = fs::read_to_string(format!("/sys/class/net/{front}/ifalias")) else { return };
    let owner = owner.trim();
    if !owner.is_empty() && fs::metadata(format!("/proc/{owner}")).is_err() {
        let hosts = (1..OWN_HOST).map(Host).filter(|host| {
            fs::metadata(format!("/run/netns/{}", namespace(number, *host))).is_ok()
        });
        drop(Networks { number, hosts: hosts.collect() });
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {}", said.trim())) }
}
