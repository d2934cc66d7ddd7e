package admin

import (
	"context"
	"slices"
	"time"
)

// Key is a signing key; its private half is nobody's to see.
type Key struct {
	KID   string     `json:"kid"`
	Use   string     `json:"use"`             // signs, or verifies only
	Phase string     `json:"phase,omitempty"` // of a self-made key: published, active, retiring
	Since *time.Time `json:"since,omitempty"` // in this phase
}

// SigningKeys lists them by kid. There are few, and it is always one page.
func (a *Admin) SigningKeys(ctx context.Context) (page Page[Key], err error) {
	signs, verify := a.Keys.KeyIDs()
	slices.Sort(verify)
	page.Items = []Key{}
	for _, kid := range verify {
		use := "verifies"
		if kid == signs {
			use = "signs"
		}
		page.Items = append(page.Items, Key{KID: kid, Use: use})
	}
	if a.KeysConfigured {
		return page, nil
	}
	stored, err := a.Store.SigningKeys(ctx)
	for _, key := range stored {
		if i := slices.IndexFunc(page.Items, func(k Key) bool { return k.KID == key.KID }); i >= 0 {
			page.Items[i].Phase, page.Items[i].Since = string(key.Phase), &key.Since
		}
	}
	return page, err
}

// RotateKeys publishes a new key; with now it signs at once, and all tokens of
// the old one are refused.
func (a *Admin) RotateKeys(ctx context.Context, now bool) (Page[Key], error) {
	if a.KeysConfigured {
		return Page[Key]{}, conflict("the signing keys stand in the configuration (signing_key): put the new one first there, keep the old one below it, and reload")
	}
	if err := a.Keys.Rotate(ctx, now); err != nil {
		return Page[Key]{}, err
	}
	return a.SigningKeys(ctx)
}
