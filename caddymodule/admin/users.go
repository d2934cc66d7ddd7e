package admin

import (
	"context"
	"time"
)

// User is a user as an operator sees it.
type User struct {
	ID         string     `json:"user_id"`
	Email      string     `json:"email,omitempty"`
	Name       string     `json:"name,omitempty"`
	Password   bool       `json:"password"` // they have one here
	CreatedAt  time.Time  `json:"created_at"`
	DisabledAt *time.Time `json:"disabled_at,omitempty"`
}

// Users lists the users, by id.
func (a *Admin) Users(ctx context.Context, paging Paging) (page Page[User], err error) {
	limit, err := paging.limit()
	if err != nil {
		return page, err
	}
	after, err := paging.name()
	if err != nil {
		return page, err
	}
	records, err := a.Store.ListUsers(ctx, after, limit+1)
	if err != nil {
		return page, err
	}
	page.Items = []User{}
	for i, record := range records {
		if i == limit {
			page.Next = nameCursor(page.Items[i-1].ID)
			break
		}
		page.Items = append(page.Items, User(record))
	}
	return page, nil
}
