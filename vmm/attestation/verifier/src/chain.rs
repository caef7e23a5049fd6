//! The chain of a report: root (ARK), authority (ASK, or ASVK for loaded keys) and endorsement key (VCEK or VLEK).

use crate::certificate::Certificate;
use crate::check::Check;
use crate::collateral::Collateral;
use crate::endorsement;
use crate::expectations::Expectations;
use crate::roots;
use crate::signature;
use crate::time::Time;
use attestation::{Product, Report, SigningKey};

/// Said by checks that need a certificate that was not given.
const MISSING: &str = "no certificate";

/// The certificates that were chosen for a report; each can be missing, and none is trusted yet.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    pub root: Option<&'a Certificate>,
    pub authority: Option<&'a Certificate>,
    pub endorsement: Option<&'a Certificate>,
}

impl<'a> Chain<'a> {
    /// Chooses the chain that holds; where none does, the one that holds furthest down, so that checks can say what is wrong with it.
    ///
    /// From the root down, so that whoever adds certificates adds no more than one signature verification for each genuine issuer.
    pub fn choose(report: &Report, collateral: &'a Collateral, now: Time, expectations: &Expectations) -> Self {
        let mut all: Vec<&Certificate> = collateral.certificates.iter().collect();
        // Of two certificates of one key, the one that is valid.
        all.sort_by_key(|certificate| !certificate.valid_at(now));
        let issued_by =
            |issuers: &[&'a Certificate], issued: &&'a Certificate| issuers.iter().any(|issuer| issued.signed_by(issuer).is_ok());
        let roots = of(&all, |root| roots::is_trusted(root, expectations) && root.signed_by(root).is_ok());
        let authorities = of(&all, |authority| issued_by(&roots, authority));
        let name = leaf_name(report.signing_key());
        let leaves = of(&all, |leaf| leaf.common_name() == name);
        let signers = of(&leaves, |leaf| signature::verify(report, leaf).is_ok());
        let sound = signers.iter().find(|leaf| issued_by(&authorities, leaf));

        let endorsement = sound.or(signers.first()).or(leaves.first()).copied();
        let issuer = |issued: Option<&Certificate>, trusted: &[&'a Certificate]| issued.and_then(|issued| issuer_of(issued, trusted, &all));
        let authority = issuer(endorsement, &authorities);
        let root = issuer(authority, &roots);
        Self {
            root,
            authority,
            endorsement,
        }
    }

    /// The product: by the report, whose version 2 leaves it to the certificate.
    pub fn product(&self, report: &Report) -> Option<Product> {
        match report.cpuid() {
            Some(_) => report.product(),
            None => self.endorsement.and_then(endorsement::product),
        }
    }

    /// Whether there are certificates for the whole chain.
    pub fn found(&self) -> Check {
        let passed = self.endorsement.is_some() && self.authority.is_some() && self.root.is_some();
        let wanted = "endorsement key, its authority, their root";
        Check::new("certificates", passed, self.shown().join(", "), wanted)
    }

    fn shown(&self) -> [String; 3] {
        let name = |certificate: Option<&Certificate>| certificate.map_or("none".to_owned(), Certificate::shown_name);
        [self.endorsement, self.authority, self.root].map(name)
    }

    /// Whether the certificates have the names of their roles and product: an ASVK must not vouch for a VCEK, nor one product for another.
    pub fn names(&self, report: &Report, product: Option<Product>) -> Check {
        const NAME: &str = "certificate names";
        let Some(product) = product else {
            return Check::impossible(NAME, "product unknown", "names of the product's chain");
        };
        let wanted = [
            leaf_name(report.signing_key()).to_owned(),
            authority_name(report.signing_key(), product),
            root_name(product),
        ];
        let seen = [self.endorsement, self.authority, self.root].map(|certificate| certificate.map(Certificate::common_name));
        let passed = seen.iter().zip(&wanted).all(|(seen, wanted)| seen.as_ref() == Some(wanted));
        Check::new(NAME, passed, self.shown().join(", "), wanted.join(", "))
    }

    /// Whether each certificate is signed by the next, and the root by itself.
    pub fn signatures(&self) -> [Check; 3] {
        let pairs = [
            ("root signature", self.root, self.root),
            ("authority signature", self.authority, self.root),
            ("endorsement signature", self.endorsement, self.authority),
        ];
        pairs.map(|(name, signed, issuer)| {
            let wanted = format!("signed by {}", issuer.map_or("an issuer".to_owned(), Certificate::shown_name));
            let (Some(signed), Some(issuer)) = (signed, issuer) else {
                return Check::impossible(name, MISSING, wanted);
            };
            match signed.signed_by(issuer) {
                Ok(()) => Check::new(name, true, "verified", wanted),
                Err(error) => Check::new(name, false, error.to_string(), wanted),
            }
        })
    }

    /// Whether the issuers may issue, the endorsement key may not, and nothing critical is left unread.
    pub fn authorities(&self) -> Check {
        const NAME: &str = "authorities";
        let wanted = "root and authority issue certificates, the endorsement key does not";
        let (Some(root), Some(authority), Some(leaf)) = (self.root, self.authority, self.endorsement) else {
            return Check::impossible(NAME, MISSING, wanted);
        };
        let problems = [
            (!root.is_authority(1), "the root may not issue authorities"),
            (!authority.is_authority(0), "the authority may not issue certificates"),
            (leaf.claims_authority(), "the endorsement key is an authority"),
            (
                [root, authority, leaf].iter().any(|certificate| certificate.unknown_critical()),
                "a critical extension is unknown",
            ),
        ];
        let problem = problems.iter().find(|(found, _)| *found).map(|(_, problem)| *problem);
        Check::new(NAME, problem.is_none(), problem.unwrap_or("as wanted"), wanted)
    }

    /// Whether all certificates are valid at a time.
    pub fn validity(&self, now: Time) -> Check {
        const NAME: &str = "validity";
        let wanted = format!("valid at {now}");
        let all = [self.endorsement, self.authority, self.root];
        if all.iter().any(Option::is_none) {
            return Check::impossible(NAME, MISSING, wanted);
        }
        match all.into_iter().flatten().find(|certificate| !certificate.valid_at(now)) {
            None => Check::new(NAME, true, "all valid", wanted),
            Some(certificate) => {
                let (from, until) = certificate.validity();
                let seen = format!("{} valid from {from} until {until}", certificate.shown_name());
                Check::new(NAME, false, seen, wanted)
            }
        }
    }
}

/// The common name of endorsement keys; a report that names no key has none.
pub(crate) fn leaf_name(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vlek => "SEV-VLEK",
        _ => "SEV-VCEK",
    }
}

/// The common name of a product's authority for keys of a kind.
pub(crate) fn authority_name(key: SigningKey, product: Product) -> String {
    match key {
        SigningKey::Vlek => format!("SEV-VLEK-{product}"),
        _ => format!("SEV-{product}"),
    }
}

/// The common name of a product's root.
pub(crate) fn root_name(product: Product) -> String {
    format!("ARK-{product}")
}

/// The certificates with a quality.
fn of<'a>(all: &[&'a Certificate], quality: impl Fn(&&'a Certificate) -> bool) -> Vec<&'a Certificate> {
    all.iter().copied().filter(|certificate| quality(certificate)).collect()
}

/// Who signed a certificate: preferably one that is trusted, else any other, else one that has the issuer's name.
fn issuer_of<'a>(issued: &Certificate, trusted: &[&'a Certificate], all: &[&'a Certificate]) -> Option<&'a Certificate> {
    let signed = |issuer: &&&Certificate| issued.signed_by(issuer).is_ok();
    let named = |issuer: &&&Certificate| issuer.subject() == issued.issuer();
    let trusted = trusted.iter().find(signed).or_else(|| all.iter().find(signed));
    trusted.or_else(|| all.iter().find(named)).copied()
}
