//! Times of hcsshim's enforcer (hcsshim 7c9ff7f, Go 1.27) for the same decisions: medians in milliseconds for policies of the same
//! form, measured in process on a cloud machine with two processors.

/// Columns of both tables; `create deny` includes the reason.
pub const COLUMNS: &[&str] = &[
    "load",
    "mount_device (1st)",
    "mount_device",
    "mount_overlay",
    "create_container",
    "create deny (+reason)",
    "exec_in_container",
    "get_properties",
];

/// Each container has its own layers.
const DISTINCT: &[(usize, [f64; 8])] = &[
    (1, [83.7, 1.24, 0.68, 1.08, 4.43, 4.77, 3.27, 0.87]),
    (10, [95.4, 1.27, 0.67, 1.29, 3.78, 3.31, 2.96, 0.80]),
    (100, [181.8, 1.48, 0.82, 3.82, 4.54, 4.09, 2.81, 0.79]),
    (1000, [1229.0, 4.08, 3.15, 26.0, 3.60, 3.54, 2.22, 0.76]),
];
/// All containers have the same layers, so that all are candidates. NaN: not measured.
const SHARED: &[(usize, [f64; 8])] = &[
    (1, [70.7, f64::NAN, f64::NAN, 0.82, 3.88, 3.48, 2.67, f64::NAN]),
    (10, [88.6, f64::NAN, f64::NAN, 1.95, 7.86, 9.80, 2.44, f64::NAN]),
    (100, [165.0, f64::NAN, f64::NAN, 10.3, 16.0, 54.7, 2.46, f64::NAN]),
    (1000, [1022.0, f64::NAN, f64::NAN, 101.0, 134.0, 414.0, 2.35, f64::NAN]),
];

/// The median for a column, if it was measured.
pub fn median(shared: bool, containers: usize, column: &str) -> Option<f64> {
    let column = COLUMNS.iter().position(|name| *name == column)?;
    let table = if shared { SHARED } else { DISTINCT };
    let (_, row) = table.iter().find(|(size, _)| *size == containers)?;
    row.get(column).copied().filter(|median| median.is_finite())
}
