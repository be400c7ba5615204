//! A QR code in the terminal.

use anyhow::{Context as _, Result};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// `text` as a code of half blocks, light on dark terminals and dark on light ones: with its quiet
/// zone, both are read. Low error correction keeps it small; nothing dirties a screen.
pub fn code(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .context("the configuration does not fit a QR code")?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_fits_a_terminal() {
        let code = code(&"x".repeat(350)).unwrap();
        let widest = code.lines().map(|l| l.chars().count()).max();
        assert!(widest < Some(80) && code.lines().count() < 40, "{code}");
        assert!(super::code(&"x".repeat(3000)).is_err());
    }
}
