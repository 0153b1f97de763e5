from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("instances", "0004_retries")]

    operations = [
        migrations.AddField(
            model_name="operation",
            name="address",
            field=models.CharField(blank=True, help_text="Where the order came from.", max_length=45),
        )
    ]
