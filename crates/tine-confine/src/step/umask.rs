//! The mask of file modes. umask(2); it cannot fail.

pub(crate) fn enter(mask: u32) {
    tine_os::limit::set_umask(mask);
}
