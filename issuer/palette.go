package issuer

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Colors are the owner's, as rgb or rrggbb, perhaps after a #; empty: ours.
type Colors struct {
	// Action is that of buttons and links.
	Action string
	// Background is that of the page around the card.
	Background string
}

// The cards that text stands on: --card of style.css.
const (
	lightCard = "#ffffff"
	darkCard  = "#181b21"
)

// What WCAG 2.2 AA asks for: 1.4.3 for text, 1.4.11 for the bounds of controls.
const (
	textContrast    = 4.5
	controlContrast = 3
)

// rgb is a color of sRGB, each part from 0 to 1.
type rgb [3]float64

var black, white = rgb{0, 0, 0}, rgb{1, 1, 1}

// CheckColor refuses what is no color of Colors.
func CheckColor(text string) error {
	_, err := parseColor(text)
	return err
}

func parseColor(text string) (rgb, error) {
	digits := strings.TrimPrefix(text, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if len(digits) != 6 || err != nil {
		return rgb{}, fmt.Errorf("%q is not a color such as 1a56c4", text)
	}
	return rgb{float64(n>>16) / 255, float64(n>>8&255) / 255, float64(n&255) / 255}, nil
}

func (c rgb) String() string {
	part := func(v float64) int { return int(math.Round(v * 255)) }
	return fmt.Sprintf("#%02x%02x%02x", part(c[0]), part(c[1]), part(c[2]))
}

// luminance is the relative luminance of WCAG 2.2.
func (c rgb) luminance() float64 {
	linear := func(v float64) float64 {
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

// contrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(a, b rgb) float64 {
	la, lb := a.luminance(), b.luminance()
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// toward mixes a part of another color in.
func (c rgb) toward(other rgb, part float64) rgb {
	for i := range c {
		c[i] += (other[i] - c[i]) * part
	}
	return c.rounded()
}

// rounded is the color as it is written.
func (c rgb) rounded() rgb {
	for i := range c {
		c[i] = math.Round(c[i]*255) / 255
	}
	return c
}

// against returns the color, mixed with another only as far as it takes to stand
// out from a background.
func (c rgb) against(background, other rgb, ratio float64) rgb {
	for part := 0.0; part < 1; part += 0.02 {
		if mixed := c.toward(other, part); contrast(mixed, background) >= ratio {
			return mixed
		}
	}
	return other
}

// css returns style sheet lines that put the colors in place of ours. Whatever
// the colors are, text and controls can be told from what they stand on: a color
// is darkened (in the dark: lightened) where it must be.
func (c Colors) css(card string, toward rgb) (string, error) {
	var lines []string
	set := func(name string, value rgb) { lines = append(lines, fmt.Sprintf("--%s: %s;", name, value)) }
	if c.Background != "" {
		background, err := parseColor(c.Background)
		if err != nil {
			return "", err
		}
		set("page", background)
	}
	if c.Action != "" {
		action, err := parseColor(c.Action)
		if err != nil {
			return "", err
		}
		on, _ := parseColor(card) // ours
		set("link", action.against(on, toward, textContrast))
		action = action.against(on, toward, controlContrast)
		set("action", action)
		// One of the two always reaches the ratio. What the pointer is over moves
		// away from the text on it.
		text, over := white, black
		if contrast(black, action) > contrast(white, action) {
			text, over = black, white
		}
		set("on-action", text)
		set("action-over", action.toward(over, 0.18))
	}
	return strings.Join(lines, " "), nil
}

// themeCSS is what comes after the style sheet.
func themeCSS(light, dark Colors) (string, error) {
	if dark.Action == "" {
		dark.Action = light.Action
	}
	day, err := light.css(lightCard, black)
	if err != nil {
		return "", err
	}
	night, err := dark.css(darkCard, white)
	if err != nil {
		return "", err
	}
	css := ""
	if day != "" {
		css = "\n:root { " + day + " }"
	}
	// Always, or the lines for the day would win in the night.
	if day != "" || night != "" {
		if dark.Background == "" && light.Background != "" {
			night += " --page: #0e1014;"
		}
		css += "\n@media (prefers-color-scheme: dark) { :root { " + strings.TrimSpace(night) + " } }"
	}
	return css, nil
}
