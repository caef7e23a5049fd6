//! What a report says about the machine: processor, signing key, TCB, settings, mitigations.

use crate::chain::Chain;
use crate::check::Check;
use crate::endorsement;
use crate::expectations::{Expectations, Mitigations, PlatformInfo};
use crate::information;
use attestation::{Product, Report, TcbVersion};

const UNKNOWN: &str = "product unknown";

/// Whether the report uses no bit that its version reserves: such a bit would mean something that is not checked here.
pub(crate) fn reserved(report: &Report) -> Check {
    let found = report.reserved();
    let seen = if found.is_empty() {
        "zero".to_owned()
    } else {
        format!("not zero in {}", found.join(", "))
    };
    let wanted = format!("zero in version {}", report.version());
    Check::new("reserved fields", found.is_empty(), seen, wanted)
}

/// Whether the report's processor is known, and is that of the certificate.
pub(crate) fn product(report: &Report, chain: &Chain, product: Option<Product>) -> Check {
    let certified = chain.endorsement.and_then(endorsement::product);
    let named = |product: Option<Product>| product.map_or("unknown", Product::name);
    let seen = match report.cpuid() {
        Some(cpuid) => format!("{} (family {:#x}, model {:#x})", named(product), cpuid.family, cpuid.model),
        None => format!("{} (by the certificate)", named(product)),
    };
    let passed = product.is_some() && product == certified;
    Check::new("product", passed, seen, format!("that of the certificate: {}", named(certified)))
}

/// Whether the processor is one of those that are accepted.
pub(crate) fn product_allowed(product: Option<Product>, expectations: &Expectations) -> Check {
    let names: Vec<&str> = expectations.products.iter().map(|product| product.name()).collect();
    let mut wanted = names.join(", ");
    if product == Some(Product::Milan) && !expectations.products.contains(&Product::Milan) {
        wanted.push_str(" (Milan's key root is extracted; name it in products to accept it)");
    }
    let passed = product.is_some_and(|product| expectations.products.contains(&product));
    Check::new("product allowed", passed, product.map_or(UNKNOWN, Product::name), wanted)
}

/// Whether a key of an accepted kind signed.
pub(crate) fn signing_key(report: &Report, expectations: &Expectations) -> Check {
    let key = report.signing_key();
    let names: Vec<String> = expectations.signing_keys.iter().map(ToString::to_string).collect();
    let masked = report.chip_key_masked();
    let seen = if masked {
        format!("{key}, masked: the firmware does not sign")
    } else {
        key.to_string()
    };
    let passed = !masked && expectations.signing_keys.contains(&key);
    Check::new("signing key", passed, seen, names.join(", "))
}

/// Whether reported ≤ committed ≤ current, in every part: a host that reports more than it runs is lying.
pub(crate) fn tcb_order(report: &Report, product: Option<Product>) -> Check {
    const NAME: &str = "TCB order";
    const WANTED: &str = "reported ≤ committed ≤ current in every part, other bytes zero";
    let Some(product) = product else {
        return Check::impossible(NAME, UNKNOWN, WANTED);
    };
    let all = [report.reported_tcb(), report.committed_tcb(), report.current_tcb()];
    let [reported, committed, current] = all;
    let ordered = reported.at_most(committed, product) && committed.at_most(current, product);
    let clean = all.iter().chain([&report.launch_tcb()]).all(|tcb| tcb.reserved_is_zero(product));
    let seen = format!(
        "reported {reported}, committed {committed}, current {current}, launch {}",
        report.launch_tcb()
    );
    Check::new(NAME, ordered && clean, seen, WANTED)
}

/// Whether a TCB is at least the minimum of the product.
pub(crate) fn minimum_tcb(name: &'static str, tcb: TcbVersion, product: Option<Product>, expectations: &Expectations) -> Check {
    let Some(product) = product else {
        return Check::impossible(name, UNKNOWN, "the product's minimum");
    };
    let seen = tcb.shown(product);
    let Some(minimum) = expectations.minimum_tcb.get(&product) else {
        let wanted = format!("a minimum, of which none is named: [minimum_tcb.{}]", product.name().to_lowercase());
        return Check::new(name, false, seen, wanted);
    };
    let passed = tcb.parts(product).all(|(part, level)| level >= minimum.of(part));
    Check::new(name, passed, seen, format!("at least {}", minimum.shown(product)))
}

/// Whether the required settings are on and the forbidden ones off.
pub(crate) fn information(report: &Report, wanted: &PlatformInfo) -> [Check; 2] {
    let seen = information::shown(report.platform_info());
    let required = report.platform_info() & wanted.required == wanted.required;
    let forbidden = report.platform_info() & wanted.forbidden == 0;
    [
        Check::new("platform required", required, seen.clone(), information::shown(wanted.required)),
        Check::new(
            "platform forbidden",
            forbidden,
            seen,
            format!("not: {}", information::shown(wanted.forbidden)),
        ),
    ]
}

/// Whether the mitigations were verified at launch and are now. A report before version 5 has no vectors.
pub(crate) fn mitigations(report: &Report, wanted: Mitigations) -> [Check; 2] {
    let check = |name, seen: Option<u64>, mask: u64| {
        let passed = seen.unwrap_or(0) & mask == mask;
        let seen = seen.map_or_else(|| format!("none in version {}", report.version()), |seen| format!("{seen:#x}"));
        Check::new(name, passed, seen, format!("all bits of {mask:#x}"))
    };
    [
        check("mitigations at launch", report.launch_mitigations(), wanted.launch),
        check("mitigations now", report.current_mitigations(), wanted.current),
    ]
}
