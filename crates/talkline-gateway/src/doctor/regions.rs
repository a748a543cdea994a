//! Where Azure has Realtime models, as far as Microsoft's pages said on one day.

/// Day of Microsoft Learn's "Deployment types and region availability" that the list is from.
pub(super) const AS_OF: &str = "2026-06-03";

/// Regions with Global Standard deployments of Realtime models.
const REALTIME_REGIONS: [&str; 6] = [
    "canadacentral",
    "centralus",
    "eastus2",
    "francecentral",
    "swedencentral",
    "southindia",
];

/// Whether the list has the region, written as `East US 2` or as `eastus2`.
pub(super) fn has_realtime(region: &str) -> bool {
    let name: String = region
        .chars()
        .filter(|c| !c.is_whitespace())
        .flat_map(char::to_lowercase)
        .collect();
    REALTIME_REGIONS.contains(&name.as_str())
}

/// The regions, for a hint.
pub(super) fn all() -> String {
    REALTIME_REGIONS.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (region, expected) in [
            ("East US 2", true),
            ("swedencentral", true),
            ("France Central", true),
            ("East US", false),
            ("", false),
        ] {
            assert_eq!(has_realtime(region), expected, "{region}");
        }
    }
}
