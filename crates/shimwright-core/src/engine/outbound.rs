//! The allow-list of networks and ports that a guest may connect and send to.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

/// The addresses that a guest may connect and send to, over TCP and UDP.
///
/// It does not restrict what the guest receives and accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound(Vec<Destination>);

/// A network and its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Destination {
    /// The bits beyond the prefix are zero.
    network: IpNet,
    ports: RangeInclusive<u16>,
}

/// The text is not a valid destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a network with ports, such as 10.0.0.0/8:443, [fd00::/8]:8080-8090 or 192.0.2.1"
)]
pub struct NotADestination(String);

impl Outbound {
    /// Parses an allow-list. A destination is an address or a network, optionally followed by a
    /// colon and a port or a range of ports. An IPv6 address with ports needs brackets.
    ///
    /// # Errors
    ///
    /// The first text that is not a destination. A network with bits set beyond its prefix and an
    /// IPv4-mapped IPv6 address are refused too.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new<T: AsRef<str>>(
        destinations: impl IntoIterator<Item = T>,
    ) -> Result<Self, NotADestination> {
        let destinations = destinations.into_iter();
        let destinations = destinations.map(|destination| destination.as_ref().parse());
        Ok(Self(destinations.collect::<Result<_, _>>()?))
    }

    /// Whether a guest may connect or send to this address. An IPv4-mapped IPv6 address counts as
    /// the IPv4 address.
    pub fn allows(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0
            .iter()
            .any(|allowed| allowed.network.contains(&ip) && allowed.ports.contains(&address.port()))
    }

    /// Whether each destination is within one of `most`.
    pub(crate) fn is_within(&self, most: &Self) -> bool {
        let is_allowed = |wanted: &Destination| most.0.iter().any(|most| wanted.is_within(most));
        self.0.iter().all(is_allowed)
    }

    /// The destinations as [`Outbound::new`] takes them.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl Destination {
    fn is_within(&self, most: &Self) -> bool {
        most.network.contains(&self.network)
            && most.ports.contains(self.ports.start())
            && most.ports.contains(self.ports.end())
    }
}

impl FromStr for Destination {
    type Err = NotADestination;

    fn from_str(text: &str) -> Result<Self, NotADestination> {
        parse(text).ok_or_else(|| NotADestination(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Destination> {
    let (network, ports) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (network, rest) = bracketed.split_once(']')?;
            // Only IPv6 needs brackets, and nothing else is in them.
            network.contains(':').then_some(())?;
            match rest {
                "" => (network, None),
                ports => (network, Some(ports.strip_prefix(':')?)),
            }
        }
        None if text.matches(':').count() > 1 => (text, None),
        None => match text.split_once(':') {
            Some((network, ports)) => (network, Some(ports)),
            None => (text, None),
        },
    };
    let (address, prefix) = match network.split_once('/') {
        Some((address, prefix)) => (address, Some(number(prefix)?)),
        None => (network, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = u8::try_from(prefix.unwrap_or(longest)).ok()?;
    let destination = Destination {
        network: IpNet::new(address, prefix).ok()?,
        ports: match ports {
            Some(ports) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                number(first)?..=number(last)?
            }
            None => 0..=u16::MAX,
        },
    };
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_right = destination.network == destination.network.trunc()
        && !destination.ports.is_empty()
        && !is_mapped;
    is_right.then_some(destination)
}

/// Digits, and nothing else that a standard parser would take.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            IpNet::V4(network) => write!(f, "{network}")?,
            IpNet::V6(network) => write!(f, "[{network}]")?,
        }
        match (self.ports.start(), self.ports.end()) {
            (0, &u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(list: &[&str]) -> Outbound {
        Outbound::new(list).unwrap()
    }

    #[track_caller]
    fn check(list: &[&str], allowed: &[&str], refused: &[&str]) {
        let outbound = outbound(list);
        for (addresses, expected) in [(allowed, true), (refused, false)] {
            for address in addresses {
                let found = outbound.allows(address.parse().unwrap());
                assert_eq!(found, expected, "{address}");
            }
        }
    }

    #[test]
    fn networks_and_ports_decide() {
        check(
            &[
                "10.0.0.0/8:443",
                "192.0.2.7",
                "[fd00::/8]:80-90",
                "2001:db8::1",
            ],
            &[
                "10.255.0.1:443",
                "192.0.2.7:1",
                "192.0.2.7:65535",
                "[fd12::1]:80",
                "[fd12::1]:90",
                "[2001:db8::1]:5",
            ],
            &[
                "10.0.0.1:444",
                "11.0.0.1:443",
                "192.0.2.8:1",
                "[fd12::1]:79",
                "[fd12::1]:91",
                "[fe80::1]:80",
                "[2001:db8::2]:5",
                "0.0.0.0:443",
            ],
        );
        check(&[], &[], &["127.0.0.1:80", "[::1]:80"]);
        check(&["0.0.0.0/0"], &["203.0.113.1:9"], &["[2001:db8::1]:9"]);
    }

    #[test]
    fn an_address_of_ipv4_in_ipv6_is_what_it_stands_for() {
        check(
            &["10.0.0.0/8"],
            &["[::ffff:10.1.2.3]:80"],
            &["[::ffff:11.1.2.3]:80", "[::10.1.2.3]:80"],
        );
        check(
            &["::/0"],
            &["[2001:db8::1]:80"],
            &["[::ffff:10.1.2.3]:80", "10.1.2.3:80"],
        );
    }

    #[test]
    fn narrower_is_inside_one_of_the_destinations() {
        let node = outbound(&["10.0.0.0/8:80-90", "10.0.0.0/8:100", "fd00::/8"]);
        for inside in [
            &[][..],
            &["10.1.0.0/16:80"],
            &["10.0.0.0/8:80-90", "[fd00::/9]:1"],
            &["10.1.2.3:100"],
        ] {
            assert!(outbound(inside).is_within(&node), "{inside:?}");
        }
        for outside in [
            &["10.1.0.0/16"][..],
            &["10.0.0.0/7:80"],
            &["10.0.0.0/8:90-91"],
            &["10.0.0.0/8:85-100"],
            &["fc00::/7"],
            &["10.1.2.3:80", "11.1.2.3:80"],
        ] {
            assert!(!outbound(outside).is_within(&node), "{outside:?}");
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_and_named() {
        for wrong in [
            "",
            "example.com",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0.0/8:",
            "10.0.0.0/8:90-80",
            "10.0.0.0/8:65536",
            "10.0.0.0/8:80-",
            "[10.0.0.0/8]:80",
            "fd00::/8:80-",
            "[fd00::/8",
            "[fd00::/8]80",
            "fd00::/129",
            "fd00::1/8",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
        ] {
            let error = Outbound::new([wrong]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{wrong:?} is not")), "{error}");
        }
    }

    #[test]
    fn it_is_passed_on_as_it_was_written() {
        for list in [
            &["10.0.0.0/8:443", "[fd00::/8]:80-90", "192.0.2.7/32"][..],
            &[],
        ] {
            assert_eq!(outbound(list).list(), list);
        }
    }
}
