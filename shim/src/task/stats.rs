//! `Stats`: the guest's cgroup counters as `io.containerd.cgroups.v2.Metrics`, which CRI takes whatever the host has.

use agent_protocol::{ContainerStatsResponse, limits::BLOCK_DEVICES};
use containerd_shim_protos::cgroups_v2::metrics::{CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PidsStat};
use protobuf::{Message, MessageField, MessageFull, reflect::ReflectValueBox, well_known_types::any::Any};

/// The answer's content; a counter that the message has no field for is left out.
pub fn metrics(stats: &ContainerStatsResponse) -> protobuf::Result<Any> {
    let value = |name: &str| stats.counters.get(name).copied().unwrap_or_default();
    let pids = PidsStat {
        current: value("pids.current"),
        limit: value("pids.max"),
        ..Default::default()
    };
    let mut memory: MemoryStat = by_name(stats, "memory.stat/");
    memory.usage = value("memory.current");
    memory.usage_limit = value("memory.max");
    memory.max_usage = value("memory.peak");
    let usage = stats.io.iter().take(BLOCK_DEVICES).map(|io| IOEntry {
        major: io.major,
        minor: io.minor,
        rbytes: io.rbytes,
        wbytes: io.wbytes,
        rios: io.rios,
        wios: io.wios,
        ..Default::default()
    });
    let metrics = Metrics {
        pids: MessageField::some(pids),
        cpu: MessageField::some(by_name::<CPUStat>(stats, "cpu.stat/")),
        memory: MessageField::some(memory),
        io: MessageField::some(IOStat {
            usage: usage.collect(),
            ..Default::default()
        }),
        memory_events: MessageField::some(by_name::<MemoryEvents>(stats, "memory.events/")),
        ..Default::default()
    };
    Ok(Any {
        type_url: Metrics::descriptor().full_name().to_owned(),
        value: metrics.write_to_bytes()?,
        ..Default::default()
    })
}

/// A message whose fields have the kernel's own names.
fn by_name<M: MessageFull>(stats: &ContainerStatsResponse, prefix: &str) -> M {
    let mut message = M::new();
    for field in M::descriptor().fields() {
        let counter = stats.counters.get(&format!("{prefix}{}", field.name()));
        if let Some(value) = counter.filter(|_| field.is_singular() && is_counter(&field)) {
            field.set_singular_field(&mut message, ReflectValueBox::U64(*value));
        }
    }
    message
}

fn is_counter(field: &protobuf::reflect::FieldDescriptor) -> bool {
    use protobuf::reflect::{RuntimeFieldType, RuntimeType};
    matches!(field.runtime_field_type(), RuntimeFieldType::Singular(RuntimeType::U64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::BlockIo;

    #[test]
    fn counters_find_their_fields_by_name() {
        let counters = [
            ("memory.current", 1),
            ("memory.max", u64::MAX),
            ("memory.stat/anon", 2),
            ("memory.stat/no_such_field", 3),
            // A field of another type, which a guest may send anyway.
            ("memory.stat/psi", 4),
            ("memory.events/oom_kill", 5),
            ("cpu.stat/usage_usec", 6),
            ("pids.current", 7),
        ];
        let stats = ContainerStatsResponse {
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
            io: vec![BlockIo {
                major: 254,
                rbytes: 8,
                ..Default::default()
            }],
            ..Default::default()
        };
        let any = metrics(&stats).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit, metrics.memory.anon),
            (1, u64::MAX, 2)
        );
        assert!(metrics.memory.psi.is_none());
        assert_eq!(
            (metrics.memory_events.oom_kill, metrics.cpu.usage_usec, metrics.pids.current),
            (5, 6, 7)
        );
        assert_eq!((metrics.io.usage[0].major, metrics.io.usage[0].rbytes), (254, 8));
    }
}
