//! Where RabbitMQ is, as far as a health check needs to know.

use shared::config::Vars;

/// Host and port of the broker. The login that the URL holds is not kept: the API never logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether TLS comes first.
    pub tls: bool,
}

impl BrokerAddress {
    pub(super) fn from_vars(vars: &mut Vars) -> Option<Self> {
        let url: String = vars.optional(
            "RABBITMQ_URL",
            "the broker; the API only asks it for /health; secret",
        )?;
        let address = Self::parse(&url);
        if address.is_none() {
            vars.problem(
                "RABBITMQ_URL",
                "must look like amqp://user:password@host:port/vhost",
            );
        }
        address
    }

    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (tls, usual) = match scheme {
            "amqp" => (false, 5672),
            "amqps" => (true, 5671),
            _ => return None,
        };
        let authority = rest.split(['/', '?']).next()?;
        let place = authority.rsplit('@').next()?;
        let (host, port) = match place.rsplit_once(':') {
            // The colon may be one of an address in brackets.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (place, usual),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
            tls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_without_its_login() {
        let parse =
            |url| BrokerAddress::parse(url).map(|found| (found.host, found.port, found.tls));
        let at = |host: &str, port, tls| Some((host.to_owned(), port, tls));
        assert_eq!(parse("amqp://u:p@mq/%2f"), at("mq", 5672, false));
        assert_eq!(
            parse("amqps://u:p%40@mq.example:5800?heartbeat=3"),
            at("mq.example", 5800, true)
        );
        assert_eq!(parse("amqp://[::1]:5673/v"), at("::1", 5673, false));
        assert_eq!(parse("amqp://[::1]"), at("::1", 5672, false));
        for odd in ["http://mq", "amqp://", "amqp://mq:port", "mq:5672"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
