//! Rules shared by volumes of coordinators and datanodes.

/// Catches a missing unit: `size: "100"` means bytes.
pub(crate) const SIZE_MIN: &str = "quantity(self.size).compareTo(quantity('64Mi')) >= 0";
pub(crate) const SIZE_MIN_MESSAGE: &str = "`size` must be at least 64Mi";

/// Volumes can only grow.
pub(crate) const SIZE_GROWS: &str = "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0";
pub(crate) const SIZE_GROWS_MESSAGE: &str =
    "`size` must be greater than or equal to its current value";

/// A class that was not set cannot be set later either.
pub(crate) const CLASS_STAYS: &str = "has(self.storageClassName) == has(oldSelf.storageClassName) \
     && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)";
pub(crate) const CLASS_STAYS_MESSAGE: &str = "`storageClassName` is immutable";
