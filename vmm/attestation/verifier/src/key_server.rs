//! What to ask AMD's key server for about a report, and whether an answer is what was asked for. Nothing is asked here.
//!
//! Source: AMD VCEK Certificate and KDS Interface Specification (57230), chapter "KDS interface".

use crate::certificate::Certificate;
use crate::chain::{authority_name, leaf_name, root_name};
use crate::collateral::{Collateral, CollateralError};
use crate::list::RevocationList;
use crate::signature;
use crate::time::Time;
use attestation::{Part, Product, Report, SigningKey};

/// Why nothing can be asked about a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Version 2, and nobody said it.
    #[error("a report of version 2 does not say which processor made it: name the product")]
    Unsaid,
    /// A later version, whose processor has no name.
    #[error("the report's processor is unknown")]
    Unknown,
    /// Another one was named.
    #[error("the report is of a {0}, not of a {1}")]
    Other(Product, Product),
    /// No key signed, or one of an unknown kind.
    #[error("the report's signing key is {0}: there is no certificate of it")]
    SigningKey(SigningKey),
    /// A platform that hides its chip.
    #[error("the report hides its chip, by which the key server finds the certificate; its host can give it")]
    Masked,
}

/// Why an answer is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No certificates and no lists.
    #[error("the answer is of no use")]
    Collateral(#[from] CollateralError),
    /// Not root and authority of the product.
    #[error("the answer is not {0} and {1}, each signed by the first")]
    Chain(String, String),
    /// Not the certificate of the key that signed the report.
    #[error("the answer is not the certificate of the key that signed the report, signed by {0}")]
    Endorsement(String),
    /// Not a revocation list of the root.
    #[error("the answer is not one revocation list that {0} signed")]
    List(String),
    /// A list that is older than the one that is there.
    #[error("the answer is a revocation list of {0}, and the one of {1} that is there is newer")]
    Older(Time, Time),
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Root and authority.
    Chain,
    /// The certificate of a chip's key.
    Endorsement,
    /// The root's revocation list, which changes.
    List,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked for.
    pub kind: Kind,
    /// Path and query of the URL.
    pub path: String,
    /// A name for the answer that no other question has: by product, kind of key, chip and TCB, of which FMC is a part.
    pub file: String,
}

/// The questions about one report.
#[derive(Debug)]
pub struct Questions<'a> {
    report: &'a Report,
    product: Product,
}

impl<'a> Questions<'a> {
    /// Prepares them. `named` is the product, which reports of version 2 do not say.
    ///
    /// # Errors
    /// See [`QuestionError`].
    pub fn about(report: &'a Report, named: Option<Product>) -> Result<Self, QuestionError> {
        let product = match (report.cpuid().map(|_| report.product()), named) {
            (None, Some(named)) => named,
            (None, None) => return Err(QuestionError::Unsaid),
            (Some(None), _) => return Err(QuestionError::Unknown),
            (Some(Some(said)), Some(named)) if said != named => return Err(QuestionError::Other(said, named)),
            (Some(Some(said)), _) => said,
        };
        match report.signing_key() {
            SigningKey::Vcek if report.chip_id() == [0; 64] => Err(QuestionError::Masked),
            SigningKey::Vcek | SigningKey::Vlek => Ok(Self { report, product }),
            other => Err(QuestionError::SigningKey(other)),
        }
    }

    /// The questions, in the order in which their answers can be judged. A loaded key's certificate is not asked for: AMD gives it to the
    /// provider whose key it is.
    pub fn all(&self) -> Vec<Question> {
        let Self { report, product } = self;
        let vlek = report.signing_key() == SigningKey::Vlek;
        let kind = if vlek { "vlek" } else { "vcek" };
        let base = format!("/{kind}/v1/{product}");
        let name = format!("{}-{kind}", product.name().to_lowercase());
        let chain = Question {
            kind: Kind::Chain,
            path: format!("{base}/cert_chain"),
            file: format!("{name}-chain.pem"),
        };
        let endorsement = || {
            let chip = hex::encode(&report.chip_id()[..product.chip_id_bytes()]);
            let tcb = report.reported_tcb();
            let levels: Vec<String> = tcb
                .parts(*product)
                .map(|(part, level)| format!("{}={level:02}", parameter(part)))
                .collect();
            Question {
                kind: Kind::Endorsement,
                path: format!("{base}/{chip}?{}", levels.join("&")),
                file: format!("{name}-{chip}-{tcb}.der"),
            }
        };
        let list = Question {
            kind: Kind::List,
            path: format!("{base}/crl"),
            file: format!("{name}.crl"),
        };
        [Some(chain), (!vlek).then(endorsement), Some(list)].into_iter().flatten().collect()
    }

    /// Whether an answer is what was asked for. `there` are the answers before it, and the revocation list that it would replace.
    ///
    /// This keeps a wrong answer from being stored under the name of a right one. It is no verification: whether the root is AMD's is not
    /// looked at.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn judge(&self, kind: Kind, answer: &[u8], there: &Collateral) -> Result<(), AnswerError> {
        let mut given = Collateral::default();
        given.add(answer)?;
        let names = [root_name(self.product), authority_name(self.report.signing_key(), self.product)];
        match kind {
            Kind::Chain => chain(&given, names),
            Kind::Endorsement => self.endorsement(&given, there, &names[1]),
            Kind::List => list(&given, there, &names[0]),
        }
    }

    fn endorsement(&self, given: &Collateral, there: &Collateral, authority: &str) -> Result<(), AnswerError> {
        let issued = |leaf: &Certificate| named(there, authority).any(|issuer| leaf.signed_by(issuer).is_ok());
        let leaf = |leaf: &Certificate| {
            leaf.common_name() == leaf_name(self.report.signing_key()) && signature::verify(self.report, leaf).is_ok() && issued(leaf)
        };
        match (given.certificates.as_slice(), given.lists.len()) {
            ([one], 0) if leaf(one) => Ok(()),
            _ => Err(AnswerError::Endorsement(authority.to_owned())),
        }
    }
}

fn chain(given: &Collateral, [root, authority]: [String; 2]) -> Result<(), AnswerError> {
    let signed = |issued: &str, issuer: &Certificate| named(given, issued).any(|issued| issued.signed_by(issuer).is_ok());
    let whole = named(given, &root).any(|issuer| signed(&root, issuer) && signed(&authority, issuer));
    match whole && given.counts() == (2, 0) {
        true => Ok(()),
        false => Err(AnswerError::Chain(root, authority)),
    }
}

fn list(given: &Collateral, there: &Collateral, root: &str) -> Result<(), AnswerError> {
    let signed = |list: &RevocationList| named(there, root).any(|root| list.signed_by(root).is_ok());
    let list = match (given.lists.as_slice(), given.certificates.len()) {
        ([one], 0) if signed(one) => one,
        _ => return Err(AnswerError::List(root.to_owned())),
    };
    // Whoever answers must not bring back a list from before a revocation.
    let newest = there.lists.iter().filter(|list| signed(list)).map(RevocationList::issued).max();
    match newest {
        Some(newest) if list.issued() < newest => Err(AnswerError::Older(list.issued(), newest)),
        _ => Ok(()),
    }
}

/// The certificates of a name.
fn named<'a>(collateral: &'a Collateral, name: &str) -> impl Iterator<Item = &'a Certificate> {
    collateral
        .certificates
        .iter()
        .filter(move |certificate| certificate.common_name() == name)
}

/// The query parameter of a part.
fn parameter(part: Part) -> &'static str {
    match part {
        Part::Fmc => "fmcSPL",
        Part::BootLoader => "blSPL",
        Part::Tee => "teeSPL",
        Part::Snp => "snpSPL",
        Part::Microcode => "ucodeSPL",
    }
}
